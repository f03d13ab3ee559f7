"""Common corruptions of photographs (Hendrycks and Dietterich 2019): noise, blur, weather, digital processing."""
